-- The states of the app on devices, each as of the report's own time.
-- KEYS  for each report: devices, options, badges of the user
-- ARGV  lease_ms, seconds to live, then for each report: device, state, at_ms, unread ('' for none)
-- Returns for each 1 when it was news, 0 when all of it is older than what is known, -1 for an unknown device, or the
-- error of keys that hold something else.
local LEASE_MS, DAY_MS = tonumber(ARGV[1]), 86400000

local function apply(devices, options, badges, name, state, at_ms, unread)
  local device = read(devices, name)
  if not device then return -1 end
  local told_at = device[STATE_AT]
  if not report(device, name, badges, state, at_ms, unread, LEASE_MS) then return 0 end
  write(devices, name, device)
  -- Once a day is enough for keys that live for months.
  if math.floor(told_at / DAY_MS) ~= math.floor(at_ms / DAY_MS) then stay_alive(devices, options, ARGV[2]) end
  return 1
end

local answers = {}
for number = 1, #KEYS / 3 do
  local key, arg = 3 * number - 2, 4 * number - 1
  local applied, answer = pcall(
    apply, KEYS[key], KEYS[key + 1], KEYS[key + 2], ARGV[arg], ARGV[arg + 1], tonumber(ARGV[arg + 2]),
    tonumber(ARGV[arg + 3]))
  answers[number] = applied and answer or {err = type(answer) == 'table' and answer.err or 'ERR ' .. tostring(answer)}
end
return answers
