-- Dead letters go back among the delayed, each once: whoever comes second finds it gone. What had ended has not, and
-- the books say so. Frees before it counts.
-- KEYS  books, dead, delayed, delayed entries
-- ARGV  for each letter: its place in the stream, ms from now until it is due, the entry as it is to be sent
-- Returns the positions (from 0) of letters that were gone.
local LANES = {'urgent', 'normal', 'bulk'}
local books = KEYS[1]
local now = now_ms()
local gone, back = {}, {}
for at = 1, #ARGV, 3 do
  local place, entry = ARGV[at], ARGV[at + 2]
  local found = redis.call('XRANGE', KEYS[2], place, place)[1]
  local letter = {}
  for i = 1, found and #found[2] or 0, 2 do letter[found[2][i]] = found[2][i + 1] end
  local n, lane = 0, 0
  if letter.entry then n, lane = header(letter.entry) end
  -- What goes back is what had ended, or the books would not balance.
  if n > 0 and header(entry) == n and redis.call('XDEL', KEYS[2], place) == 1 then
    table.insert(back, {entry, now + tonumber(ARGV[at + 1]), n, LANES[lane], letter.reason})
  else
    table.insert(gone, (at - 1) / 3)
  end
end
local total = 0
for _, one in ipairs(back) do
  local entry, due, n, lane, reason = one[1], one[2], one[3], one[4], one[5]
  local id = id_of(entry)
  redis.call('HSET', KEYS[4], id, entry)
  redis.call('ZADD', KEYS[3], due, id)
  add(books, 'end:' .. lane .. ':dead:' .. reason, -n)
  add(books, 'replayed:' .. lane .. ':' .. reason, n)
  total = total + n
end
add(books, 'ended', -total)
add(books, 'delayed', total)
return gone
