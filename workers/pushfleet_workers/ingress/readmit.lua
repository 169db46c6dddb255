-- Refused entries go back to the routers, each once: whoever comes second finds it gone. Those that were refused stay
-- counted as malformed, and count once more as added. When they were written first goes with them: what came before its
-- user was erased is theirs no more, whenever it comes back.
-- KEYS  stream, books, refused stream
-- ARGV  for each entry: its place in the refused stream, when it was written first, version, name of the field that holds the
--       payload, payload
-- Returns the positions (from 0) of entries that were gone.
local gone, back = {}, 0
for at = 1, #ARGV, 5 do
  if redis.call('XDEL', KEYS[3], ARGV[at]) == 1 then
    redis.call('XADD', KEYS[1], '*', 'v', ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], 'w', ARGV[at + 1])
    back = back + 1
  else
    table.insert(gone, (at - 1) / 5)
  end
end
if back > 0 then redis.call('HINCRBY', KEYS[2], 'readmitted', back) end
return gone
