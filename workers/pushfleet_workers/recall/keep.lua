-- Whom a part of a message went to is kept, in case that it is taken back.
-- KEYS  the message
-- ARGV  the part's number, what to keep, for how many ms, when the message expires (Unix ms), most parts
-- Returns 1 when the message has been taken back already: nothing is kept then.
local key = KEYS[1]
local there = redis.call('HLEN', key)
if there > 0 then
  local known = redis.call('HMGET', key, 'r', ARGV[1])
  if known[1] then return 1 end
  if not known[2] and there > tonumber(ARGV[5]) then return 0 end
end
redis.call('HSET', key, ARGV[1], ARGV[2], 'e', ARGV[4])
redis.call('PEXPIRE', key, ARGV[3])
return 0
