-- The first write is the decision: parcels of new parts go to their lanes, those for later wait; a repeat changes
-- nothing.
-- KEYS  books, marks of the entries' bucket, of the one before and of the one after, index of buckets,
--       ready urgent/normal/bulk, delayed, delayed entries
-- ARGV  bucket, most deliveries that may lie in the ledger before bulk work is dropped (0: no limit),
--       then for each part: its id, how many entries, how many for later, the entries, and for each later one when it
--       is due (Unix ms) and the entry
-- Returns the time, how many parts were repeats, for each part the deliveries of its first write, and the ids of entries
-- for later that there was no room for when their parts were first written.
--
-- A mark is the part with the deliveries of its first write, and where there was no room for some of it that was for
-- later, their ids under the part and ':lost'.
local LOST, ID_SIZE = ':lost', 16
local books = KEYS[1]
local share = tonumber(ARGV[2])
local now = now_ms()
local counts, repeats = {}, 0
local lanes, due, waiting = {{}, {}, {}}, {}, {}
local put, ready, delayed, dropped, lost = 0, 0, 0, 0, {}
local held = 0
if share > 0 then
  local b = redis.call('HMGET', books, 'ready', 'leased', 'delayed')
  held = (tonumber(b[1]) or 0) + (tonumber(b[2]) or 0) + (tonumber(b[3]) or 0)
end

local parts, marked, marks = {}, {}, {}
local at = 3
while ARGV[at] do
  table.insert(parts, ARGV[at])
  at = at + 3 + tonumber(ARGV[at + 1]) + 2 * tonumber(ARGV[at + 2])
end
for i = 2, 4 do
  -- Of the three there is mostly one.
  for first = 1, redis.call('EXISTS', KEYS[i]) * #parts, 1000 do
    local last = math.min(first + 999, #parts)
    for n, known in ipairs(redis.call('HMGET', KEYS[i], unpack(parts, first, last))) do
      marked[parts[first + n - 1]] = marked[parts[first + n - 1]] or known or nil
    end
  end
end

-- The deliveries of an entry and its lane; no lane where there is no room for it.
local function place(entry)
  local n, lane = header(entry)
  put = put + n
  if lane == 3 and share > 0 and held + ready + delayed + n > share then
    dropped = dropped + n
    return n, nil
  end
  return n, lane
end

at = 3
while ARGV[at] do
  local part, entries, later = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local known = marked[part]
  if known then
    repeats = repeats + 1
    table.insert(counts, tonumber(known))
    -- Who wrote it first may have died before anybody heard of these.
    for i = 2, 4 do
      local ids = redis.call('HGET', KEYS[i], part .. LOST) or ''
      for first = 1, #ids, ID_SIZE do table.insert(lost, string.sub(ids, first, first + ID_SIZE - 1)) end
    end
  else
    local before, lost_before = put, #lost
    for i = at + 3, at + 2 + entries do
      local n, lane = place(ARGV[i])
      if lane then
        ready = ready + n
        table.insert(lanes[lane], ARGV[i])
      end
    end
    for i = at + 3 + entries, at + 2 + entries + 2 * later, 2 do
      local n, lane = place(ARGV[i + 1])
      local id = id_of(ARGV[i + 1])
      if lane then
        delayed = delayed + n
        table.insert(due, ARGV[i])
        table.insert(due, id)
        table.insert(waiting, id)
        table.insert(waiting, ARGV[i + 1])
      else
        table.insert(lost, id)
      end
    end
    local total = put - before
    marked[part] = total
    table.insert(marks, part)
    table.insert(marks, total)
    if #lost > lost_before then
      table.insert(marks, part .. LOST)
      table.insert(marks, table.concat(lost, '', lost_before + 1))
    end
    table.insert(counts, total)
  end
  at = at + 3 + entries + 2 * later
end

for lane = 1, 3 do push_all('RPUSH', KEYS[5 + lane], lanes[lane]) end
push_all('ZADD', KEYS[9], due)
push_all('HSET', KEYS[10], waiting)
add(books, 'put', put)
add(books, 'ready', ready)
add(books, 'delayed', delayed)
add(books, 'ended', dropped)
add(books, 'end:bulk:dropped:backlog', dropped)
if #marks > 0 then
  push_all('HSET', KEYS[2], marks)
  redis.call('ZADD', KEYS[5], ARGV[1], ARGV[1])
  redis.call('PEXPIRE', KEYS[2], 604800000)
end
return {now, repeats, counts, lost}
