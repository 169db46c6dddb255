-- Parcels that wait become due at once, those that are still there; the oldest go first.
-- KEYS  books, delayed   ARGV  pairs of when a parcel was put (ms), which is long past, and its id
pass_when_full(KEYS[1])
for at = 1, #ARGV, 2 do redis.call('ZADD', KEYS[2], 'XX', 'LT', ARGV[at], ARGV[at + 1]) end
return 0
