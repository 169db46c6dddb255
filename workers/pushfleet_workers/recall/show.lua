-- A message is put for devices: from now on it is what they show under its replace key, before what they showed.
-- KEYS  the replace key
-- ARGV  what is put: the time of its entry (f64), what is shown of it (a letter) and the message's digest; for how many
--       ms; most devices; most that is remembered of one; 1 when it may have been put before and something else since:
--       then what is of a later entry stays; the devices
-- Returns how many of them show it from now on.
local key, pushed = KEYS[1], ARGV[1]
local most, deep, again = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local at, message = struct.unpack('>d', pushed), string.sub(pushed, 10)

-- What of other messages a device showed, newest first, and whether it showed this one.
local function others(value)
  for first = 9, #value, 13 do
    if string.sub(value, first + 1, first + 12) == message then
      return string.sub(value, 9, first - 1) .. string.sub(value, first + 13), true
    end
  end
  return string.sub(value, 9), false
end

local there, shown = redis.call('HLEN', key), 0
for first = 6, #ARGV, 1000 do
  local last = math.min(first + 999, #ARGV)
  local before, now = redis.call('HMGET', key, unpack(ARGV, first, last)), {}
  for n, value in ipairs(before) do
    local beneath, known = '', false
    if value then beneath, known = others(value) end
    -- A device beyond the bound is as good as one that shows something else.
    local fits = value or there < most
    if fits and not (again and value and (known or struct.unpack('>d', value) > at)) then
      if not value then there = there + 1 end
      table.insert(now, ARGV[first + n - 1])
      table.insert(now, pushed .. string.sub(beneath, 1, (deep - 1) * 13))
      shown = shown + 1
    end
  end
  if #now > 0 then redis.call('HSET', key, unpack(now)) end
end
redis.call('PEXPIRE', key, ARGV[2])
return shown
