-- The operator's pause ends. What the vendor asked for, and the breaker, stand; with force they end as well, and the
-- breaker's next probe may go at once.
-- KEYS  gate   ARGV  1 to force it
-- Returns 1 when an operator had paused it.
local gate = KEYS[1]
pass_when_full(gate)
local until_ms = tonumber(redis.call('HGET', gate, 'operator_until')) or 0
redis.call('HDEL', gate, 'operator_since', 'operator_until', 'operator_reason', 'operator_elsewhere')
if ARGV[1] == '1' then
  redis.call('HDEL', gate, 'pause_until', 'classes', 'probing')
  if redis.call('HEXISTS', gate, 'open_until') == 1 then redis.call('HSET', gate, 'open_until', now_ms()) end
end
return until_ms > now_ms() and 1 or 0
