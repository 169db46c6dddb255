-- The erasure of a user begins. Beside one that is not done it is noted under a name of its own: what came until that one
-- goes on to be refused.
-- KEYS  erasures   ARGV  since when (Unix ms, negative), owner, the owner's other name
-- A full server takes the first write only where it is one that frees, and an erasure frees.
redis.call('ZREM', KEYS[1], '')
if redis.call('ZADD', KEYS[1], 'NX', ARGV[1], ARGV[2]) == 0 then redis.call('ZADD', KEYS[1], 'LT', ARGV[1], ARGV[3]) end
return 0
