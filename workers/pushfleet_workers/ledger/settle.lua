-- Results of leased parcels, each only if its lease still stands. Frees before it counts, so that a full server drains.
-- KEYS  books, leased of the owner, delayed, delayed entries, dead, ready urgent/normal/bulk, suspect
-- ARGV  about how many dead letters are kept, then for each result: id, fence, deliveries in hand before, ended, unknown
--       outcomes, 1 to give back, rest entry or '', then how many ends and for each its field and number, how many
--       later ones and for each ms from now and entry, how many dead letters and for each entry, reason, code, attempts
-- Returns now and the positions (from 0) of results whose lease was gone.
local books, leased = KEYS[1], KEYS[2]
local now = now_ms()
local gone = {}
local results = {}
local at = 2
local function next_arg()
  at = at + 1
  return ARGV[at - 1]
end
local function next_rows(width)
  local rows = {}
  for i = 1, tonumber(next_arg()) do
    local row = {}
    for j = 1, width do row[j] = next_arg() end
    rows[i] = row
  end
  return rows
end
while at <= #ARGV do
  table.insert(results, {
    id = next_arg(), fence = tonumber(next_arg()), before = tonumber(next_arg()), ended = tonumber(next_arg()),
    unknown = tonumber(next_arg()), give_back = next_arg() == '1', rest = next_arg(),
    ends = next_rows(2), later = next_rows(2), dead = next_rows(4),
  })
end
local ids, held = {}, {}
for i, result in ipairs(results) do ids[i] = result.id end
for first = 1, #ids, 1000 do
  local last = math.min(first + 999, #ids)
  for i, value in ipairs(redis.call('HMGET', leased, unpack(ids, first, last))) do held[ids[first + i - 1]] = value end
end

-- One parcel may be settled twice in a call, first in part: each sees what the one before it left.
local freed, accepted = {}, {}
for i, result in ipairs(results) do
  local id = result.id
  local value = held[id]
  if value and struct.unpack('>d', value) == result.fence and header(value, 9) == result.before then
    table.insert(accepted, {result, value})
    if result.rest == '' then
      table.insert(freed, id)
      held[id] = nil
    else
      held[id] = string.sub(value, 1, 8) .. result.rest
    end
  else
    table.insert(gone, i - 1)
  end
end
push_all('HDEL', leased, freed)
pass_when_full(books)

local ended, ready, delayed, left, unknown, order = 0, 0, 0, 0, 0, 0
local ends, back = {}, {}
for _, one in ipairs(accepted) do
  local result, value = one[1], one[2]
  local after = 0
  if result.give_back then
    local entry = string.sub(value, 9)
    local n, lane, lost = header(entry)
    table.insert(back, {lost > 1 and KEYS[9] or KEYS[5 + lane], entry})
    ready = ready + n
  end
  if result.rest ~= '' then
    after = header(result.rest)
    if held[result.id] then redis.call('HSET', leased, result.id, held[result.id]) end
  end
  for _, later in ipairs(result.later) do
    local id = id_of(later[2])
    redis.call('HSET', KEYS[4], id, later[2])
    -- Ties would come back in the order of their ids, and an older message after a newer one.
    redis.call('ZADD', KEYS[3], now + tonumber(later[1]) + order, id)
    order = order + 0.001
    delayed = delayed + header(later[2])
  end
  for _, letter in ipairs(result.dead) do
    bury(KEYS[5], ARGV[1], letter[1], letter[2], letter[3], letter[4])
  end
  for _, e in ipairs(result.ends) do ends[e[1]] = (ends[e[1]] or 0) + tonumber(e[2]) end
  ended = ended + result.ended
  unknown = unknown + result.unknown
  left = left + result.before - after
end
-- What came first stands first again.
for i = #back, 1, -1 do redis.call('LPUSH', back[i][1], back[i][2]) end
add(books, 'leased', -left)
add(books, 'ready', ready)
add(books, 'delayed', delayed)
add(books, 'ended', ended)
add(books, 'unknown', unknown)
for field, n in pairs(ends) do add(books, 'end:' .. field, n) end
return {now, gone}
