-- A call is over: what rang or was to ring until then does not any more.
-- KEYS  calls of the user
-- ARGV  the call's name or its conversation, when it ended by the backend's word (Unix ms, 0: it says none), when such an
--       end without a time came (else 0), when it came, most names, ms to live
-- Returns 1 when that is news. Calls are over soon: with too many names those before are forgotten.
local key, name = KEYS[1], ARGV[1]
local value = redis.call('HGET', key, name)
local times = {string.match(value or '', '^(%d+):(%d+):?(%d*)$')}
local news = false
for at = 1, 3 do
  local known, given = tonumber(times[at]) or 0, tonumber(ARGV[at + 1])
  news = news or given > known
  times[at] = math.max(known, given)
end
if not news then return 0 end
if not value and redis.call('HLEN', key) >= tonumber(ARGV[5]) then redis.call('UNLINK', key) end
redis.call('HSET', key, name, string.format('%.0f:%.0f:%.0f', times[1], times[2], times[3]))
redis.call('PEXPIRE', key, ARGV[6])
return 1
