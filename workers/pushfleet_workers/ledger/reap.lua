-- Work of a process that stopped beating goes back to its lane. What was lost twice is a suspect and travels alone;
-- a suspect that is lost again is dead.
-- KEYS  books, owners, leased of the owner, suspect, dead, ready urgent/normal/bulk
-- ARGV  owner, about how many dead letters are kept
-- Returns the number of deliveries given back, or -1 when the owner lives.
local books = KEYS[1]
local now = now_ms()
local deadline = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not deadline or tonumber(deadline) > now then return -1 end
local all = redis.call('HGETALL', KEYS[3])
-- Read before anything is written: what cannot be read must not take its neighbours along.
local entries = {}
for i = 2, #all, 2 do
  local entry = string.sub(all[i], 9)
  local n, lane, lost, expires, put = header(entry)
  lost = lost + 1
  entry = struct.pack('>HBBdd', n, lane, lost, expires, put) .. string.sub(entry, ID_AT)
  table.insert(entries, {entry, n, lane, lost})
end
redis.call('DEL', KEYS[3])
redis.call('ZREM', KEYS[2], ARGV[1])
local back, dead = 0, 0
for _, one in ipairs(entries) do
  local entry, n, lane, lost = one[1], one[2], one[3], one[4]
  if lost > 2 then
    bury(KEYS[5], ARGV[2], entry, 'poison', 'process_died', lost)
    add(books, 'end:' .. ({'urgent', 'normal', 'bulk'})[lane] .. ':dead:poison', n)
    dead = dead + n
  else
    if lost == 2 then
      redis.call('RPUSH', KEYS[4], entry)
    else
      redis.call('LPUSH', KEYS[5 + lane], entry)
    end
    back = back + n
  end
end
add(books, 'leased', -(back + dead))
add(books, 'ready', back)
add(books, 'ended', dead)
add(books, 'unknown', back + dead)
return back
