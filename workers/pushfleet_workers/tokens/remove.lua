-- A device goes.   KEYS  devices, badges of the user   ARGV  device   Returns its record, or nothing.
local packed = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return packed
