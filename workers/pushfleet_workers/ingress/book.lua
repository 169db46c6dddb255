-- KEYS  stream, books
-- Returns entries ever added, present, the id of the oldest present, and the books (as field, value, ...).
local books = redis.call('HGETALL', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 0, '', books} end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local added, present = 0, 0
for i = 1, #info, 2 do
  if info[i] == 'entries-added' then added = info[i + 1] end
  if info[i] == 'length' then present = info[i + 1] end
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
return {added, present, first[1] and first[1][1] or '', books}
