-- A user is erased. Their devices are set aside until the index has given up their tokens, so that whoever breaks off
-- in between, or comes after, finds them.
-- KEYS  devices, devices set aside, what else is known of the user   ARGV  seconds to set them aside at most
-- Returns 1 when anything was known, and the devices as fields and records.
-- A full server takes the first write only where it is one that frees.
redis.call('HDEL', KEYS[2], '')
-- What is none of ours goes as well.
local devices = redis.call('TYPE', KEYS[1]).ok == 'hash' and redis.call('HGETALL', KEYS[1]) or {}
local known = redis.call('UNLINK', unpack(KEYS, 3))
for at = 1, #devices, 2 do redis.call('HSET', KEYS[2], devices[at], devices[at + 1]) end
if #devices > 0 then redis.call('EXPIRE', KEYS[2], ARGV[1]) end
known = known + redis.call('UNLINK', KEYS[1])
return {known > 0 and 1 or 0, redis.call('HGETALL', KEYS[2])}
