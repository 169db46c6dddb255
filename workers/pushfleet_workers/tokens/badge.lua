-- A push counts in a device's badge, each message once.
-- KEYS  badges of the user   ARGV  device, digest of the message (4 bytes), when it was written (u32 of 16 ms,
--       which comes round after two years), seconds to live
-- Returns the pushes counted since the base. A value is the count (u32), then digest and time (u32) of each of the last
-- 63 messages, which together stay within hash-max-listpack-value.
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value or #value % 8 ~= 4 or #value > 4 + 63 * 8 then value = '\0\0\0\0' end
local count = struct.unpack('>I4', value)
local at = string.find(value, ARGV[2], 5, true)
while at do
  if (at - 5) % 8 == 0 then return count end
  at = string.find(value, ARGV[2], at + 1, true)
end
count = count + 1
local recent = string.sub(string.sub(value, 5) .. ARGV[2] .. struct.pack('>I4', ARGV[3]), -63 * 8)
redis.call('HSET', KEYS[1], ARGV[1], struct.pack('>I4', count) .. recent)
-- Now and then is enough: a key that lives for weeks needs no push to tell it.
if count % 16 == 1 then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
return count
