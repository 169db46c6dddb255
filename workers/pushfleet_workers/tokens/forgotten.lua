-- The token state of a user who is being erased is gone, and with it all that was to go by erasures that began earlier.
-- KEYS  erasures   ARGV  since when (Unix ms, negative), owner, the owner's other name, until when messages are to go
-- A full server takes the first write only where it is one that frees, and an erasure frees.
redis.call('ZREM', KEYS[1], '')
local again = redis.call('ZSCORE', KEYS[1], ARGV[3])
if again and tonumber(again) >= tonumber(ARGV[1]) then redis.call('ZREM', KEYS[1], ARGV[3]) end
return redis.call('ZADD', KEYS[1], 'GT', ARGV[4], ARGV[2])
