-- What the last answers mean for the whole account: a pause, a breaker that opens or closes, a rate that adapts.
-- KEYS  gate
-- ARGV  answers that show the vendor works, failures that show it does not, failures that open the breaker,
--       shortest and longest time open (ms), pause (ms, 0: none), reason of the pause, 1 when rate limited,
--       1 to open the breaker at once, 1 when a probe told nothing, then pairs of a message class and for how long it pauses (ms)
-- Returns the state: closed or open; and ms until it is tried again.
local gate = KEYS[1]
local now = now_ms()
pass_when_full(gate)
local good, bad = tonumber(ARGV[1]), tonumber(ARGV[2])
local g = redis.call('HMGET', gate, 'fails', 'open_until', 'open_ms', 'pause_until', 'factor', 'factor_at', 'probing')
local pause = tonumber(ARGV[6])
if pause > 0 then
  local until_ms = math.max(now + pause, tonumber(g[4]) or 0)
  redis.call('HSET', gate, 'pause_until', until_ms, 'pause_reason', ARGV[7])
end
if ARGV[11] then
  -- By class, until when; what is over is forgotten here, so that the field stays small.
  local classes, kept = redis.call('HGET', gate, 'classes'), {}
  for class, until_ms in pairs(classes and cjson.decode(classes) or {}) do
    if until_ms > now then kept[class] = until_ms end
  end
  for at = 11, #ARGV, 2 do kept[ARGV[at]] = math.max(kept[ARGV[at]] or 0, now + tonumber(ARGV[at + 1])) end
  redis.call('HSET', gate, 'classes', cjson.encode(kept))
end
local factor_age = now - (tonumber(g[6]) or 0)
if ARGV[8] == '1' and factor_age > 1000 then
  redis.call('HSET', gate, 'factor', math.max(0.05, (tonumber(g[5]) or 1) / 2), 'factor_at', now)
elseif good > 0 and g[5] and factor_age > 1000 then
  local factor = tonumber(g[5]) + 0.05
  if factor >= 1 then
    redis.call('HDEL', gate, 'factor', 'factor_at')
  else
    redis.call('HSET', gate, 'factor', factor, 'factor_at', now)
  end
end
if ARGV[9] ~= '1' and good > 0 then
  redis.call('HDEL', gate, 'fails', 'open_until', 'open_ms', 'probing')
  return {'closed', 0}
end
if ARGV[10] == '1' and g[2] and g[7] then
  redis.call('HDEL', gate, 'probing')
  redis.call('HSET', gate, 'open_until', now)
  return {'open', 0}
end
local fails = redis.call('HINCRBY', gate, 'fails', bad)
if ARGV[9] ~= '1' and (bad == 0 or (fails < tonumber(ARGV[3]) and not g[2])) then
  return {g[2] and 'open' or 'closed', 0}
end
-- Failures of requests that left before it opened do not lengthen the wait; that of the probe does.
if g[2] and tonumber(g[2]) > now and not g[7] then return {'open', tonumber(g[2]) - now} end
local open_ms = math.min(tonumber(ARGV[5]), (tonumber(g[3]) or tonumber(ARGV[4]) / 2) * 2)
redis.call('HDEL', gate, 'probing')
redis.call('HSET', gate, 'open_until', now + open_ms, 'open_ms', open_ms)
if pause == 0 then redis.call('HSET', gate, 'pause_reason', ARGV[7]) end
return {'open', open_ms}
