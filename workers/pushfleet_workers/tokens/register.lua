-- A registration replaces what was registered before, unless that is newer. Whoever logged in since logs it out.
-- KEYS  devices, options, badges of the user
-- ARGV  device, new record, at_ms, state ('' for none), unread ('' for none), lease_ms, seconds to live, most devices
-- Returns whether it holds, the record as it is now, and the tokens that went: {vendor, token, registered_at_ms, ...}.
local name, at_ms, life_s, most = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[7]), tonumber(ARGV[8])
local device, gone = device_in(ARGV[2]), {}

local function lost(channels)
  for _, channel in ipairs(channels) do
    gone[#gone + 1], gone[#gone + 2], gone[#gone + 3] = channel[VENDOR], channel[TOKEN], channel[SINCE]
  end
end

local function same_in(channels, one)
  for _, channel in ipairs(channels) do
    if channel[VENDOR] == one[VENDOR] and channel[TOKEN] == one[TOKEN] then return channel end
  end
end

if #device[CHANNELS] == 0 then device[REGISTERED_AT] = at_ms end
local old = read(KEYS[1], name)
local holds = not old or registered_at(old) <= at_ms
if not holds then
  device = old
elseif old then
  for _, at in ipairs({STATE, STATE_AT, LEASE_UNTIL, UNREAD, UNREAD_LAG}) do device[at] = old[at] end
  for at = #device + 1, #old do device[at] = old[at] end
  -- Whoever registers has logged in: an older logout is over.
  if old[STATE] == 'o' and old[STATE_AT] < at_ms then device[STATE] = '' end
  if old[LOGGED_OUT_AT] >= at_ms then device[LOGGED_OUT_AT] = old[LOGGED_OUT_AT] end
  lost(keep_channels(old, function(before)
    local now = same_in(device[CHANNELS], before)
    if now then now[QUARANTINED_UNTIL] = before[QUARANTINED_UNTIL] end
    return now
  end))
end

-- The user's other installations: a token is on one of them only, its newest; those that were not heard of for a life
-- go, and beyond the limit those that were silent the longest.
local others = {}
if redis.call('HLEN', KEYS[1]) > (old and 1 or 0) then
  local all = redis.call('HGETALL', KEYS[1])
  for at = 1, #all, 2 do
    if all[at] ~= name then
      local other = device_in(all[at + 1])
      local heard = other and heard_at(other) or 0
      others[#others + 1] = {heard, all[at], other}
    end
  end
  table.sort(others, function(one, other) return one[1] > other[1] end)
end
for rank, entry in ipairs(others) do
  local heard, other_name, other = entry[1], entry[2], entry[3]
  if rank >= most or heard < at_ms - life_s * 1000 then
    redis.call('HDEL', KEYS[1], other_name)
    redis.call('HDEL', KEYS[3], other_name)
    if other then lost(other[CHANNELS]) end
  elseif holds then
    local moved = keep_channels(other, function(theirs)
      local ours = same_in(device[CHANNELS], theirs)
      if not ours then return true end
      if theirs[SINCE] <= at_ms then return false end
      keep_channels(device, function(channel) return channel ~= ours end)
      return true
    end)
    if #moved > 0 then write(KEYS[1], other_name, other) end
  end
end

if ARGV[4] ~= '' then
  report(device, name, KEYS[3], ARGV[4], at_ms, tonumber(ARGV[5]), tonumber(ARGV[6]))
end
for _, login in ipairs(logins_in(KEYS[2])) do
  if login[LOGIN_DEVICE] ~= name and is_on(device, login[LOGIN_PLATFORM]) then
    report(device, name, KEYS[3], 'o', login[LOGIN_AT])
  end
end
local packed = write(KEYS[1], name, device)
stay_alive(KEYS[1], KEYS[2], life_s)
return {holds and 1 or 0, packed, gone}
