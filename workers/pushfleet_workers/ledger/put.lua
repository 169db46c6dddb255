-- The first write is the decision: parcels of new parts go to their lanes, those for later wait; a repeat changes
-- nothing.
-- KEYS  books, marks of the entries' bucket, of the one before and of the one after, index of buckets,
--       ready urgent/normal/bulk, delayed, delayed entries
-- ARGV  bucket, most deliveries that may lie in the ledger before bulk work is dropped (0: no limit), how many parts,
--       their ids, a string with how many entries each has and how many for later (u32 both), then for each part the
--       entries, and for each later one when it is due (Unix ms) and the entry
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

local total, shapes = tonumber(ARGV[3]), ARGV[4 + tonumber(ARGV[3])]
local marked, marks = {}, {}
for i = 2, 4 do
  -- Of the three there is mostly one.
  for first = 4, redis.call('EXISTS', KEYS[i]) * (3 + total), 1000 do
    local last = math.min(first + 999, 3 + total)
    for n, known in ipairs(redis.call('HMGET', KEYS[i], unpack(ARGV, first, last))) do
      local part = ARGV[first + n - 1]
      if known then marked[part] = marked[part] or known end
    end
  end
end

-- The deliveries of an entry and its lane; no lane where there is no room for it.
local function place(entry)
  local n, lane = struct.unpack('>HB', entry)
  put = put + n
  if lane == 3 and share > 0 and held + ready + delayed + n > share then
    dropped = dropped + n
    return n, nil
  end
  return n, lane
end

local at = 5 + total
for i = 1, total do
  local part = ARGV[3 + i]
  local entries, later = struct.unpack('>I4I4', shapes, 8 * i - 7)
  local known = marked[part]
  if known then
    repeats = repeats + 1
    counts[i] = tonumber(known)
    -- Who wrote it first may have died before anybody heard of these.
    for k = 2, 4 do
      local ids = redis.call('HGET', KEYS[k], part .. LOST) or ''
      for first = 1, #ids, ID_SIZE do lost[#lost + 1] = string.sub(ids, first, first + ID_SIZE - 1) end
    end
  else
    local before, lost_before = put, #lost
    for j = at, at + entries - 1 do
      local n, lane = place(ARGV[j])
      if lane then
        ready = ready + n
        lane = lanes[lane]
        lane[#lane + 1] = ARGV[j]
      end
    end
    for j = at + entries, at + entries + 2 * later - 1, 2 do
      local n, lane = place(ARGV[j + 1])
      local id = id_of(ARGV[j + 1])
      if lane then
        delayed = delayed + n
        due[#due + 1] = ARGV[j]
        due[#due + 1] = id
        waiting[#waiting + 1] = id
        waiting[#waiting + 1] = ARGV[j + 1]
      else
        lost[#lost + 1] = id
      end
    end
    counts[i] = put - before
    marked[part] = put - before
    marks[#marks + 1] = part
    marks[#marks + 1] = texts[put - before]
    if #lost > lost_before then
      marks[#marks + 1] = part .. LOST
      marks[#marks + 1] = table.concat(lost, '', lost_before + 1)
    end
  end
  at = at + entries + 2 * later
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
