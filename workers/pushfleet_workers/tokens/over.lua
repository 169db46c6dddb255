-- A call in a conversation is over: what rang or was to ring until then does not any more.
-- KEYS  calls of the user   ARGV  conversation, when it ended (Unix ms), most conversations, ms to live
-- Returns 1 when that is news. Calls are over soon: with too many conversations those before are forgotten.
local known = tonumber(redis.call('HGET', KEYS[1], ARGV[1]))
if known and known >= tonumber(ARGV[2]) then return 0 end
if not known and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then redis.call('UNLINK', KEYS[1]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
