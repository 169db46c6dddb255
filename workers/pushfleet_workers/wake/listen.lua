-- A drain listens from now on, for a while.
-- KEYS  trigger, listeners   ARGV  drain, ms
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
-- What frees goes first: a full server then takes the rest.
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), ARGV[1])
return 1
