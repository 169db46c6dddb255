-- Shared by the scripts that keep how far something has come, by name: a hash of times, Unix ms.

-- nil for what is no time: it is as good as none.
local function time_in(value)
  return value and tonumber(string.match(value, '^%d+$'))
end

-- The quarter goes that is furthest behind.
local function make_room(key)
  local all, times = redis.call('HGETALL', key), {}
  for at = 2, #all, 2 do table.insert(times, time_in(all[at]) or 0) end
  table.sort(times)
  local last, gone = times[math.ceil(#times / 4)], {}
  for at = 1, #all, 2 do
    if (time_in(all[at + 1]) or 0) <= last then table.insert(gone, all[at]) end
  end
  redis.call('HDEL', key, unpack(gone))
end

-- Note how far it has come under a name, a time as text; of *most* names at most, for *life_s* after the last news.
-- Returns whether it was news.
local function advance(key, name, up_to, most, life_s)
  local known = time_in(redis.call('HGET', key, name))
  if known and known >= tonumber(up_to) then return false end
  if not known and redis.call('HLEN', key) >= tonumber(most) then make_room(key) end
  redis.call('HSET', key, name, up_to)
  redis.call('EXPIRE', key, life_s)
  return true
end
