-- What a user wants from a conversation.
-- KEYS  options of the user   ARGV  conversation, option, now_ms, most options, seconds to live
-- Returns 0 when the user has too many already, else 1. A full hash first loses the options whose time is over.
-- The field without a name holds the user's preferences, that of the byte 255 their logins: neither is an option.
local function room()
  local options = redis.call('HLEN', KEYS[1]) - redis.call('HEXISTS', KEYS[1], '') - redis.call('HEXISTS', KEYS[1], '\255')
  return redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 or options < tonumber(ARGV[4])
end
if not room() then
  local all = redis.call('HGETALL', KEYS[1])
  for at = 1, #all, 2 do
    local until_ms = tonumber(string.match(all[at + 1], ':(%d+)$'))
    if all[at] ~= '' and all[at] ~= '\255' and until_ms and until_ms <= tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], all[at]) end
  end
  if not room() then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
