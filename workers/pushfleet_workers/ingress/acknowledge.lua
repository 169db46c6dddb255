-- The router is done with entries: they leave the stream, and what was decided is counted, each part once. A part's
-- mark holds its deliveries: those that a router put and died before it could say so are added by whoever finds them.
-- KEYS  stream, books, marks of the entries' bucket, of the one before and of the one after, index of buckets
-- ARGV  group, bucket, how many entries, their stream ids, their part ids, a string with each one's deliveries (u32) and
--       the number of what else it counts (u16), then of each such number, from 1 on, how many counts it stands for, and
--       for each its field and number
-- Returns how many entries left the stream by this call and how many parts were repeats.
local total = tonumber(ARGV[3])
local ID, PART = 3, 3 + total
local rows = ARGV[4 + 2 * total]
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, ID + 1, ID + total))
local done = redis.call('XDEL', KEYS[1], unpack(ARGV, ID + 1, ID + total))

local seen, marks = {}, {{}, {}, {}}
for bucket = 1, 3 do
  -- Of the three there is mostly one.
  local there = redis.call('EXISTS', KEYS[2 + bucket]) == 1
  seen[bucket] = there and redis.call('HMGET', KEYS[2 + bucket], unpack(ARGV, PART + 1, PART + total)) or {}
end
local one, two, three = seen[1], seen[2], seen[3]
-- The server writes out each number anew, and most are the same few.
local texts = {}
local function mark(bucket, part, deliveries)
  local list = marks[bucket]
  texts[deliveries] = texts[deliveries] or string.format('%d', deliveries)
  list[#list + 1] = part
  list[#list + 1] = texts[deliveries]
end
-- How many new parts count what each number stands for.
local kinds = {}
local sum, fresh, repeats = 0, {}, 0
for i = 1, total do
  local part = ARGV[PART + i]
  local deliveries, kind = struct.unpack('>I4H', rows, 6 * i - 5)
  local known = fresh[part] or one[i] or two[i] or three[i]
  if known then
    repeats = repeats + 1
    if deliveries > tonumber(known) then
      sum = sum + deliveries - tonumber(known)
      mark(one[i] and 1 or two[i] and 2 or three[i] and 3 or 1, part, deliveries)
      fresh[part] = deliveries
    end
  else
    fresh[part] = deliveries
    mark(1, part, deliveries)
    sum = sum + deliveries
    kinds[kind] = (kinds[kind] or 0) + 1
  end
end
local sums, kind, at = {deliveries = sum}, 1, 5 + 2 * total
while ARGV[at] do
  local last = at + 2 * tonumber(ARGV[at])
  for j = at + 1, last, 2 do sums[ARGV[j]] = (sums[ARGV[j]] or 0) + tonumber(ARGV[j + 1]) * (kinds[kind] or 0) end
  kind, at = kind + 1, last + 1
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
