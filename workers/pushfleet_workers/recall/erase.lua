-- Whom a part of a message went to is kept without those who were erased.
-- KEYS  the message   ARGV  the part's number, what was kept, what is to be kept ('': nothing)
-- Returns 1, or 0 where it is not there as it was.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
-- A full server takes the first write only where it is one that frees.
redis.call('HDEL', KEYS[1], '')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
