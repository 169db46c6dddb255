-- A device logged in: the user's others are logged out as of then, as far as the app's policy goes.
-- KEYS  devices, options, badges of the user
-- ARGV  device, at_ms, seconds to live, every spelling of the platform (none: any platform)
-- Returns those that were logged out by it. One that registered later, or was logged out by then, is none of them.
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
stay_alive(KEYS[1], KEYS[2], ARGV[3])
return out
