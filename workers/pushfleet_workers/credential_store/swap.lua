-- Writes a credential's record, unless somebody else changed it since it was read, and counts the change.
-- KEYS: records, version. ARGV: field, the record as it was read, the record as it is to be; empty: there is none.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
redis.call('INCR', KEYS[2])
return 1
