-- A device logged in: the user's others are logged out as of then, as far as the app's policy goes.
-- KEYS  devices, options, badges of the user   ARGV  device, at_ms, platform ('' for any), seconds to live
-- Returns those that were logged out by it. One that registered later, or was logged out by then, is none of them.
local at_ms, platform, out = tonumber(ARGV[2]), ARGV[3], {}
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local device = name ~= ARGV[1] and read(KEYS[1], name)
  if device and (platform == '' or device[PLATFORM] == platform) and device[LOGGED_OUT_AT] < at_ms
    and report(device, name, KEYS[3], 'o', at_ms) then
    write(KEYS[1], name, device)
    out[#out + 1] = name
  end
end
stay_alive(KEYS[1], KEYS[2], ARGV[4])
return out
