-- The router is done with entries: they leave the stream, and what was decided is counted, each part once.
-- KEYS  stream, books, marks of the entries' bucket, marks of the bucket before, index of buckets
-- ARGV  group, bucket, then for each entry: its stream id, part id, deliveries, how many counts, and for each its
--       field and number
-- Returns how many entries were acknowledged by this call and how many of them were repeats of a part.
local books = KEYS[2]
local done, repeats = 0, 0
local at = 3
local sums = {}
while ARGV[at] do
  local id, part, deliveries, counts = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local first = at + 4
  at = first + 2 * counts
  redis.call('XACK', KEYS[1], ARGV[1], id)
  if redis.call('XDEL', KEYS[1], id) == 1 then
    done = done + 1
    if redis.call('HEXISTS', KEYS[4], part) == 1 or redis.call('HSETNX', KEYS[3], part, '1') == 0 then
      repeats = repeats + 1
    else
      sums['deliveries'] = (sums['deliveries'] or 0) + deliveries
      for i = first, at - 1, 2 do sums[ARGV[i]] = (sums[ARGV[i]] or 0) + tonumber(ARGV[i + 1]) end
    end
  end
end
if done > 0 then
  redis.call('ZADD', KEYS[5], ARGV[2], ARGV[2])
  redis.call('PEXPIRE', KEYS[3], 604800000)
  redis.call('HINCRBY', books, 'routed', done)
  if repeats > 0 then redis.call('HINCRBY', books, 'repeated', repeats) end
  for field, n in pairs(sums) do
    if n > 0 then redis.call('HINCRBY', books, field, n) end
  end
end
return {done, repeats}
