-- Leased parcels that ended as a whole, all in the same way: what nearly every result is, without the ceremony of
-- settle.lua. Each only if its lease still stands.
-- KEYS  books, leased of the owner
-- ARGV  end field, how many results, their ids, a string with each one's fence (f64) and deliveries in hand (u16)
-- Returns the positions (from 0) of results whose lease was gone.
local total = tonumber(ARGV[2])
local stood = ARGV[3 + total]
local freed, gone = {}, {}
local ended = 0
for first = 3, 2 + total, 1000 do
  local last = math.min(first + 999, 2 + total)
  for i, value in ipairs(redis.call('HMGET', KEYS[2], unpack(ARGV, first, last))) do
    local at = first + i - 1
    -- As a leased value begins: the fence, then the entry with its deliveries.
    local mine = string.sub(stood, 10 * at - 29, 10 * at - 20)
    if value and string.sub(value, 1, 10) == mine then
      freed[#freed + 1] = ARGV[at]
      ended = ended + struct.unpack('>H', mine, 9)
    else
      gone[#gone + 1] = at - 3
    end
  end
end
push_all('HDEL', KEYS[2], freed)
pass_when_full(KEYS[1])
add(KEYS[1], 'leased', -ended)
add(KEYS[1], 'ended', ended)
add(KEYS[1], 'end:' .. ARGV[1], ended)
return gone
