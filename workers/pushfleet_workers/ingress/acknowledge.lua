-- The router is done with entries: they leave the stream, and what was decided is counted, each part once. A part's
-- mark holds its deliveries: those that a router put and died before it could say so are added by whoever finds them.
-- KEYS  stream, books, marks of the entries' bucket, of the one before and of the one after, index of buckets
-- ARGV  group, bucket, how many entries, their stream ids, their part ids, then for each entry: its deliveries, how
--       many counts, and for each its field and number
-- Returns how many entries left the stream by this call and how many parts were repeats.
local total = tonumber(ARGV[3])
local ids, parts = {}, {}
for i = 1, total do
  ids[i], parts[i] = ARGV[3 + i], ARGV[3 + total + i]
end
redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
local done = redis.call('XDEL', KEYS[1], unpack(ids))

local seen, marks = {}, {{}, {}, {}}
for bucket = 1, 3 do
  -- Of the three there is mostly one.
  local there = redis.call('EXISTS', KEYS[2 + bucket]) == 1
  seen[bucket] = there and redis.call('HMGET', KEYS[2 + bucket], unpack(parts)) or {}
end
local function mark(bucket, part, deliveries)
  table.insert(marks[bucket], part)
  table.insert(marks[bucket], deliveries)
end
local sums, fresh, repeats = {deliveries = 0}, {}, 0
local at = 4 + 2 * total
for i = 1, total do
  local first, last = at + 2, at + 1 + 2 * tonumber(ARGV[at + 1])
  local part, deliveries = parts[i], tonumber(ARGV[at])
  local bucket = seen[1][i] and 1 or seen[2][i] and 2 or seen[3][i] and 3 or 1
  local known = fresh[part] or seen[bucket][i]
  if known then
    repeats = repeats + 1
    if deliveries > tonumber(known) then
      sums.deliveries = sums.deliveries + deliveries - tonumber(known)
      mark(bucket, part, deliveries)
      fresh[part] = deliveries
    end
  else
    fresh[part] = deliveries
    mark(1, part, deliveries)
    sums.deliveries = sums.deliveries + deliveries
    for j = first, last, 2 do sums[ARGV[j]] = (sums[ARGV[j]] or 0) + tonumber(ARGV[j + 1]) end
  end
  at = last + 1
end

local books = KEYS[2]
if done > 0 then redis.call('HINCRBY', books, 'routed', done) end
if repeats > 0 then redis.call('HINCRBY', books, 'repeated', repeats) end
for bucket = 1, 3 do
  if #marks[bucket] > 0 then redis.call('HSET', KEYS[2 + bucket], unpack(marks[bucket])) end
end
if #marks[1] > 0 then
  redis.call('ZADD', KEYS[6], ARGV[2], ARGV[2])
  redis.call('PEXPIRE', KEYS[3], 604800000)
end
for field, n in pairs(sums) do
  if n > 0 then redis.call('HINCRBY', books, field, n) end
end
return {done, repeats}
