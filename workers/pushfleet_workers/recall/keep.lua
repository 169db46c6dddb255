-- Whom a part of a message went to is kept, in case that it is taken back.
-- KEYS  the message
-- ARGV  the part's number, what to keep, for how many ms, when the message expires (Unix ms), most parts
-- Returns 1 when the message has been taken back already: nothing is kept then.
local key = KEYS[1]
if redis.call('HEXISTS', key, 'r') == 1 then return 1 end
if redis.call('HEXISTS', key, ARGV[1]) == 1 or redis.call('HLEN', key) <= tonumber(ARGV[5]) then
  redis.call('HSET', key, ARGV[1], ARGV[2], 'e', ARGV[4])
  redis.call('PEXPIRE', key, ARGV[3])
end
return 0
