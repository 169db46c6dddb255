-- The device that has a token shows no notifications, or its channel is passed over until a time.
-- KEYS  devices of the user   ARGV  vendor, token, below_ms, until_ms ('' to mute the device)
-- Returns whether there is such a device that registered before below_ms. What is passed over for longer stays so.
local below_ms, until_ms, found = tonumber(ARGV[3]), tonumber(ARGV[4]), 0
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local device, held = read(KEYS[1], name), false
  for _, channel in ipairs(device and device[CHANNELS] or {}) do
    if channel[VENDOR] == ARGV[1] and channel[TOKEN] == ARGV[2] and channel[SINCE] < below_ms then
      held = true
      if until_ms then channel[QUARANTINED_UNTIL] = math.max(channel[QUARANTINED_UNTIL], until_ms) end
    end
  end
  if held then
    if not until_ms then device[PERMITTED] = false end
    write(KEYS[1], name, device)
    found = 1
  end
end
return found
