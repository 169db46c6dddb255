-- The push of a message was dropped: the next message carries what it would have told.
-- KEYS  storms of the user
-- ARGV  message, the fields of the storms that wait for it
local WAITING, BEFORE, ID = 6, 7, 1
for at = 2, #ARGV do
  local packed = redis.call('HGET', KEYS[1], ARGV[at])
  local unpacked, storm = pcall(cmsgpack.unpack, packed or '')
  if unpacked and type(storm) == 'table' and #storm == BEFORE and storm[WAITING][ID] == ARGV[1] then
    storm[WAITING][ID] = ''
    redis.call('HSET', KEYS[1], ARGV[at], cmsgpack.pack(storm))
  end
end
return 0
