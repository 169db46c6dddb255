-- The first write is the decision: parcels of new parts go to their lanes, a repeat changes nothing.
-- KEYS  books, marks of the entries' bucket, of the one before and of the one after, index of buckets,
--       ready urgent/normal/bulk
-- ARGV  bucket, most deliveries that may lie in the ledger before bulk work is dropped (0: no limit),
--       then for each part: its id, how many entries, the entries
-- Returns, for each part, the deliveries of its first write, and how many parts were repeats.
local books = KEYS[1]
local share = tonumber(ARGV[2])
local now = now_ms()
local counts, repeats = {}, 0
local lanes = {{}, {}, {}}
local put, ready, dropped = 0, 0, 0
local held = 0
if share > 0 then
  local b = redis.call('HMGET', books, 'ready', 'leased', 'delayed')
  held = (tonumber(b[1]) or 0) + (tonumber(b[2]) or 0) + (tonumber(b[3]) or 0)
end

local parts, marked, marks = {}, {}, {}
local at = 3
while ARGV[at] do
  table.insert(parts, ARGV[at])
  at = at + 2 + tonumber(ARGV[at + 1])
end
for i = 2, 4 do
  for first = 1, #parts, 1000 do
    local last = math.min(first + 999, #parts)
    for n, known in ipairs(redis.call('HMGET', KEYS[i], unpack(parts, first, last))) do
      marked[parts[first + n - 1]] = marked[parts[first + n - 1]] or known or nil
    end
  end
end

at = 3
while ARGV[at] do
  local part, entries = ARGV[at], tonumber(ARGV[at + 1])
  local known = marked[part]
  if known then
    repeats = repeats + 1
    table.insert(counts, tonumber(known))
  else
    local total = 0
    for i = at + 2, at + 1 + entries do
      local body = ARGV[i]
      local n, lane = header(body)
      total = total + n
      if lane == 3 and share > 0 and held + ready + n > share then
        dropped = dropped + n
      else
        ready = ready + n
        table.insert(lanes[lane], body)
      end
    end
    put = put + total
    marked[part] = total
    table.insert(marks, part)
    table.insert(marks, total)
    table.insert(counts, total)
  end
  at = at + 2 + entries
end

for lane = 1, 3 do push_all('RPUSH', KEYS[5 + lane], lanes[lane]) end
add(books, 'put', put)
add(books, 'ready', ready)
add(books, 'ended', dropped)
add(books, 'end:bulk:dropped:backlog', dropped)
if #marks > 0 then
  push_all('HSET', KEYS[2], marks)
  redis.call('ZADD', KEYS[5], ARGV[1], ARGV[1])
  redis.call('PEXPIRE', KEYS[2], 604800000)
end
return {now, repeats, counts}
