-- Leased parcels that ended as a whole, all in the same way: what nearly every result is, without the ceremony of
-- settle.lua. Each only if its lease still stands.
-- KEYS  books, leased of the owner
-- ARGV  end field, then for each result: id, fence, deliveries in hand
-- Returns the positions (from 0) of results whose lease was gone.
local ids, freed, gone = {}, {}, {}
for at = 2, #ARGV, 3 do table.insert(ids, ARGV[at]) end
local ended = 0
for first = 1, #ids, 1000 do
  local last = math.min(first + 999, #ids)
  for i, value in ipairs(redis.call('HMGET', KEYS[2], unpack(ids, first, last))) do
    local number = first + i - 1
    local at = 3 * number
    local size = tonumber(ARGV[at + 1])
    if value and struct.unpack('>d', value) == tonumber(ARGV[at]) and header(value, 9) == size then
      table.insert(freed, ids[number])
      ended = ended + size
    else
      table.insert(gone, number - 1)
    end
  end
end
push_all('HDEL', KEYS[2], freed)
pass_when_full(KEYS[1])
add(KEYS[1], 'leased', -ended)
add(KEYS[1], 'ended', ended)
add(KEYS[1], 'end:' .. ARGV[1], ended)
return gone
