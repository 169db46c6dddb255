-- A claim left work behind: whether one more drain should be triggered.
-- KEYS  trigger, listeners   ARGV  most drains
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[1]) then return 0 end
return redis.call('SET', KEYS[1], '1', 'NX', 'PX', 1000) and 1 or 0
