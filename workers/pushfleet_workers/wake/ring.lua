-- There is work: ring the bell, and say whether a drain must be triggered because nobody listens.
-- KEYS  bell, trigger, listeners
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
if redis.call('LLEN', KEYS[1]) == 0 then
  redis.call('LPUSH', KEYS[1], '1')
  redis.call('PEXPIRE', KEYS[1], 10000)
end
if redis.call('ZCARD', KEYS[3]) > 0 then return 0 end
return redis.call('SET', KEYS[2], '1', 'NX', 'PX', 5000) and 1 or 0
