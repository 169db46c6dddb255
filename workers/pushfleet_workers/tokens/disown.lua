-- A token's index entry goes, if it still names this owner.   KEYS  index   ARGV  field, owner
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
