-- A call is over: what rang or was to ring until then does not any more.
-- KEYS  calls of the user
-- ARGV  the call's name or its conversation, when it ended by the backend's word (Unix ms, 0: it says none), when such an
--       end without a time came (else 0), most names, ms to live
-- Returns 1 when that is news. Calls are over soon: with too many names those before are forgotten.
local key, name = KEYS[1], ARGV[1]
local value = redis.call('HGET', key, name)
local sent, entered = string.match(value or '', '^(%d+):(%d+)$')
sent, entered = tonumber(sent) or 0, tonumber(entered) or 0
if tonumber(ARGV[2]) <= sent and tonumber(ARGV[3]) <= entered then return 0 end
if not value and redis.call('HLEN', key) >= tonumber(ARGV[4]) then redis.call('UNLINK', key) end
sent, entered = math.max(sent, tonumber(ARGV[2])), math.max(entered, tonumber(ARGV[3]))
redis.call('HSET', key, name, string.format('%.0f:%.0f', sent, entered))
redis.call('PEXPIRE', key, ARGV[5])
return 1
