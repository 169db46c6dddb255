-- A user is being erased.   KEYS  erasures   ARGV  'NX' or 'GT', until when their messages are to go, owner
-- A full server takes the first write only where it is one that frees, and an erasure frees.
redis.call('ZREM', KEYS[1], '')
return redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2], ARGV[3])
