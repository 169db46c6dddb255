-- What a user wants of pushes, unless somebody else changed it meanwhile.
-- KEYS  options of the user   ARGV  field, the record as it was read ('': none), the new one ('': none), seconds to live
-- Returns 0 when the record is another by now, else 1.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return 1
