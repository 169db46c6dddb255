-- A device logged in: the user's others are logged out as of then, as far as the app's policy goes.
-- KEYS  devices, options, badges of the user
-- ARGV  device, at_ms, seconds to live, every spelling of the platform (none: any platform)
-- Returns those that were logged out by it. One that registered later, or was logged out by then, is none of them. The
-- login is kept for those whose registration is older and comes later: the newest of each device and platform, of all
-- the last eight.
local at_ms, out = tonumber(ARGV[2]), {}
local platform = {unpack(ARGV, 4)}
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local device = name ~= ARGV[1] and read(KEYS[1], name)
  if device and is_on(device, platform) and device[LOGGED_OUT_AT] < at_ms
    and report(device, name, KEYS[3], 'o', at_ms) then
    write(KEYS[1], name, device)
    out[#out + 1] = name
  end
end

local logins = {}
for _, login in ipairs(logins_in(KEYS[2])) do
  if login[LOGIN_DEVICE] ~= ARGV[1] or login[LOGIN_PLATFORM][1] ~= platform[1] then
    logins[#logins + 1] = login
  else
    at_ms = math.max(at_ms, login[LOGIN_AT])
  end
end
logins[#logins + 1] = {at_ms, ARGV[1], platform}
table.sort(logins, function(one, other) return one[LOGIN_AT] > other[LOGIN_AT] end)
redis.call('HSET', KEYS[2], LOGINS_FIELD, cmsgpack.pack({unpack(logins, 1, 8)}))
stay_alive(KEYS[1], KEYS[2], ARGV[3])
return out
