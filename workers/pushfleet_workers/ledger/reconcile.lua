-- After a failover or a restart the ledger may be older than what its processes remember. Leases of a living process
-- that it has nothing of in hand any more would stand for ever: they go back to their lanes. Its process may have sent
-- them, but did not die of them.
-- The first one that comes raises the fence, above all that may have been given and forgotten, and notes the gap.
-- KEYS  books, gate, leased of the owner, suspect, dead, ready urgent/normal/bulk
-- ARGV  about how many dead letters are kept, the history of the data by name, then for each parcel that the process
--       has in hand: id, fence, deliveries
-- Returns the number of deliveries given back, and the gaps of the last histories: fences between the two of a pair are
-- forgotten.
local GAPS_MAX = 8
local books, gate, leased = KEYS[1], KEYS[2], KEYS[3]
local in_hand = {}
local function lease(id, fence, deliveries) return id .. string.format('%.0f:%d', fence, deliveries) end
for at = 3, #ARGV, 3 do in_hand[lease(ARGV[at], ARGV[at + 1], ARGV[at + 2])] = true end
local ids, values = {}, {}
local all = redis.call('HGETALL', leased)
for i = 1, #all, 2 do
  local fence = struct.unpack('>d', all[i + 1])
  if not in_hand[lease(all[i], fence, (header(all[i + 1], 9)))] then
    table.insert(ids, all[i])
    table.insert(values, all[i + 1])
  end
end
local unsure = as_lost(values, function(lost) return math.max(lost, 1) end)
push_all('HDEL', leased, ids)
pass_when_full(books)
local back = return_lost(unsure, books, KEYS[4], KEYS[5], ARGV[1], {KEYS[6], KEYS[7], KEYS[8]})

local known = redis.call('HMGET', gate, 'history', 'gaps')
local gaps = cjson.decode(known[2] or '[]')
if known[1] ~= ARGV[2] then
  local last = tonumber(redis.call('HGET', books, 'fence') or 0)
  local t = redis.call('TIME')
  -- No process makes a million claims in a second.
  local first = math.max(last + 1, t[1] * 1000000 + t[2])
  redis.call('HSET', books, 'fence', string.format('%.0f', first))
  table.insert(gaps, {string.format('%.0f', last), string.format('%.0f', first)})
  while #gaps > GAPS_MAX do table.remove(gaps, 1) end
  redis.call('HSET', gate, 'history', ARGV[2], 'gaps', cjson.encode(gaps))
end
local flat = {}
for _, gap in ipairs(gaps) do
  table.insert(flat, gap[1])
  table.insert(flat, gap[2])
end
return {back, flat}
