-- A push counts in a device's badge, each message once.
-- KEYS  badges of the user   ARGV  device, digest of the message (8 bytes), seconds to live
-- Returns the pushes counted since the base. A value is the count (u32), then the digests of the last 16 messages.
local value = redis.call('HGET', KEYS[1], ARGV[1]) or '\0\0\0\0'
local count = struct.unpack('>I4', value)
local recent = string.sub(value, 5)
if string.find(recent, ARGV[2], 1, true) then return count end
count = count + 1
redis.call('HSET', KEYS[1], ARGV[1], struct.pack('>I4', count) .. string.sub(recent .. ARGV[2], -128))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return count
