-- A message is not pushed to a user after all, except to some places: no storm waits for a push of it there any more.
-- KEYS  storms of the user
-- ARGV  conversation, message, the places
local WAITING, BEFORE, ID, PLACE = 6, 7, 1, 16
local kept = {}
for at = 3, #ARGV do kept[ARGV[at]] = true end
local storms = redis.call('HGETALL', KEYS[1])
for at = 1, #storms, 2 do
  local field = storms[at]
  if string.sub(field, 1, -PLACE - 2) == ARGV[1] and not kept[string.sub(field, -PLACE)] then
    local unpacked, storm = pcall(cmsgpack.unpack, storms[at + 1])
    if unpacked and type(storm) == 'table' and #storm == BEFORE and storm[WAITING][ID] == ARGV[2] then
      -- It may have been put all the same: then it must find what it tells of.
      storm[BEFORE], storm[WAITING] = storm[WAITING], {}
      redis.call('HSET', KEYS[1], field, cmsgpack.pack(storm))
    end
  end
end
return 0
