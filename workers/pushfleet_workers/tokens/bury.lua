-- A token died: it goes from the user's devices, or is passed over for a while, and leaves a tombstone behind.
-- KEYS  devices, tombstones of the user
-- ARGV  device ('' for any), vendor, token, from_ms and below_ms of its registration, fate ('dropped', 'quarantined'),
--       until_ms, now_ms, vendor's code, since_ms (0: undated), accepted and deaths of the account so far,
--       seconds that a tombstone lives, most tombstones of a user
-- Returns {id, tombstone, ...} for what is news, and for news of this token that a process died before telling.
-- Positions in a tombstone: the order of the fields in tombstones.py. An untold one has a second field, '<id>!'.
local vendor, token, from_ms, below_ms, fate = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local until_ms, now_ms, life_ms, most = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[13] * 1000, tonumber(ARGV[14])
local GRAVE_VENDOR, GRAVE_TOKEN, GRAVE_AT = 2, 4, 11
-- What is untold for longer than a process takes to tell it, nobody tells any more.
local UNTOLD_MS = 10000
local dropping, news = fate == 'dropped', {}

local function dies(channel)
  return channel[TOKEN] == token and channel[VENDOR] == vendor
    and channel[SINCE] >= from_ms and channel[SINCE] < below_ms
end

local function bury(name, place, channel)
  local device = string.gsub(name, '.', function(byte) return string.format('%02x', string.byte(byte)) end)
  local since = string.format('%.0f', channel[SINCE])
  local id = string.sub(redis.sha1hex(table.concat({KEYS[1], device, vendor, token, since}, ' ')), 1, 24)
  local stone = cmsgpack.pack({
    device, vendor, channel[2], token, channel[5], channel[6], channel[SINCE], place, ARGV[9], tonumber(ARGV[10]),
    now_ms, fate, until_ms, tonumber(ARGV[11]), tonumber(ARGV[12]),
  })
  redis.call('HSET', KEYS[2], id, stone, id .. '!', '')
  news[id] = stone
end

for _, name in ipairs(ARGV[1] ~= '' and {ARGV[1]} or redis.call('HKEYS', KEYS[1])) do
  local device, changed = read(KEYS[1], name), false
  for place, channel in ipairs(device and device[CHANNELS] or {}) do
    -- What is passed over already is no news; that it is certain now is.
    if dies(channel) and (dropping or channel[QUARANTINED_UNTIL] <= now_ms) then
      bury(name, place, channel)
      changed = true
      if not dropping then channel[QUARANTINED_UNTIL] = until_ms end
    end
  end
  if changed then
    if dropping then keep_channels(device, function(channel) return not dies(channel) end) end
    write(KEYS[1], name, device)
  end
end

-- The graves of the user: those too old go, and beyond the limit the oldest.
local graves, untold, all = {}, {}, redis.call('HGETALL', KEYS[2])
for at = 1, #all, 2 do
  local id, whole = string.match(all[at], '^(%x+)(!?)$')
  if whole == '!' then
    untold[id] = true
  elseif id then
    local read_well, stone = pcall(cmsgpack.unpack, all[at + 1])
    graves[#graves + 1] = {read_well and type(stone) == 'table' and stone or {}, id, all[at + 1]}
  end
end
table.sort(graves, function(one, other) return (one[1][GRAVE_AT] or 0) > (other[1][GRAVE_AT] or 0) end)
for rank, grave in ipairs(graves) do
  local stone, id, packed = grave[1], grave[2], grave[3]
  if rank > most or (stone[GRAVE_AT] or 0) < now_ms - life_ms then
    redis.call('HDEL', KEYS[2], id, id .. '!')
  elseif untold[id] and stone[GRAVE_TOKEN] == token and stone[GRAVE_VENDOR] == vendor
    and stone[GRAVE_AT] < now_ms - UNTOLD_MS then
    news[id] = packed
  end
end
if next(news) then redis.call('EXPIRE', KEYS[2], ARGV[13]) end
local told = {}
for id, stone in pairs(news) do told[#told + 1], told[#told + 2] = id, stone end
return told
