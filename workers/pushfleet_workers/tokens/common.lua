-- Shared by the scripts that change devices. The keys of a change carry the user's hash tag.
--
-- Positions in a packed device and in a channel: the order of the fields in record.py. Fields that a script does not
-- know stay as they are, so that an older process takes nothing from what a newer one wrote.
local CHANNELS, STATE, STATE_AT, LEASE_UNTIL, UNREAD, UNREAD_LAG, PERMITTED = 1, 2, 3, 4, 5, 6, 7
local PLATFORM, REGISTERED_AT, LOGGED_OUT_AT = 10, 14, 15
local DEVICE_DEFAULTS = {{}, '', 0, 0, 0, 0, true, '', '', '', '', '', '', 0, 0}
local VENDOR, TOKEN, SINCE, QUARANTINED_UNTIL = 1, 3, 4, 7
local CHANNEL_DEFAULTS = {'', '', '', 0, 'alert', '', 0}

-- Of two reports of one moment the later step of an app's life holds: any order of arrival ends the same.
local RANK = {[''] = 0, f = 1, b = 2, k = 3, o = 4}

-- The types of a record's fields, by its defaults. Every change reads a device whole, and of a report that was the longest
-- part: so what checks it asks for one type a field, and calls no global.
local type, ipairs, KINDS = type, ipairs, {}
for _, defaults in ipairs({DEVICE_DEFAULTS, CHANNEL_DEFAULTS}) do
  KINDS[defaults] = {}
  for at, default in ipairs(defaults) do KINDS[defaults][at] = type(default) end
end

-- Fill in what is absent; false for a record that is none.
local function fill(record, defaults)
  if type(record) ~= 'table' then return false end
  local kinds = KINDS[defaults]
  for at = 1, #kinds do
    local value = record[at]
    if value == nil then
      record[at] = defaults[at]
    elseif type(value) ~= kinds[at] then
      return false
    end
  end
  return true
end

-- What a reader would fill in by itself takes no room.
local function trim(record, defaults)
  for at = #record, 2, -1 do
    if record[at] ~= defaults[at] then return end
    record[at] = nil
  end
end

-- nil where there is none, or a damaged one, which is as good as none.
local function device_in(packed)
  if not packed then return nil end
  local unpacked, device = pcall(cmsgpack.unpack, packed)
  if not unpacked or type(device) ~= 'table' or device[CHANNELS] == nil or not fill(device, DEVICE_DEFAULTS)
    or not RANK[device[STATE]] then
    return nil
  end
  for _, channel in ipairs(device[CHANNELS]) do
    if type(channel) ~= 'table' or #channel < SINCE or not fill(channel, CHANNEL_DEFAULTS) then return nil end
  end
  return device
end

local function read(devices, name)
  return device_in(redis.call('HGET', devices, name))
end

local function write(devices, name, device)
  for _, channel in ipairs(device[CHANNELS]) do trim(channel, CHANNEL_DEFAULTS) end
  trim(device, DEVICE_DEFAULTS)
  local packed = cmsgpack.pack(device)
  redis.call('HSET', devices, name, packed)
  return packed
end

-- All channels come with one registration; a device that lost them all keeps its time by itself.
local function registered_at(device)
  local at_ms = device[REGISTERED_AT]
  for _, channel in ipairs(device[CHANNELS]) do at_ms = math.max(at_ms, channel[SINCE]) end
  return at_ms
end

local function heard_at(device)
  return math.max(registered_at(device), device[STATE_AT])
end

-- Whether a device is on the platform of these spellings, which are all of it but for capitals; none: any platform.
local function is_on(device, platform)
  local name = string.lower(device[PLATFORM])
  for _, spelling in ipairs(platform) do
    if name == spelling then return true end
  end
  return #platform == 0
end

-- The logins that logged other devices out, in a field of the options that no conversation has: its byte is not UTF-8.
local LOGINS_FIELD, LOGIN_AT, LOGIN_DEVICE, LOGIN_PLATFORM = '\255', 1, 2, 3

local function logins_in(options)
  local packed = redis.call('HGET', options, LOGINS_FIELD)
  local unpacked, logins = pcall(cmsgpack.unpack, packed or '')
  if not unpacked or type(logins) ~= 'table' then return {} end
  local whole = {}
  for _, login in ipairs(logins) do
    if type(login) == 'table' and type(login[LOGIN_AT]) == 'number' and type(login[LOGIN_DEVICE]) == 'string'
      and type(login[LOGIN_PLATFORM]) == 'table' then
      whole[#whole + 1] = login
    end
  end
  return whole
end

-- Keep the channels that satisfy a condition; gives the others.
local function keep_channels(device, wanted)
  local at_ms, kept, others = registered_at(device), {}, {}
  for _, channel in ipairs(device[CHANNELS]) do
    local into = wanted(channel) and kept or others
    into[#into + 1] = channel
  end
  device[CHANNELS] = kept
  if #kept == 0 then device[REGISTERED_AT] = at_ms end
  return others
end

-- Devices go when somebody walks through them (device_keeper.py): a time to live would cost every user in the world forty
-- bytes of Redis 7. One that was given, because a record cannot be read, ends when the user is heard of.
local function stay_alive(devices, options, life_s)
  redis.call('PERSIST', devices)
  redis.call('EXPIRE', options, life_s)
end

-- Times in a badge are u32 of these, which come round after two years; nothing in it becomes half as old.
local BADGE_TICK_MS, BADGE_TICKS = 16, 2 ^ 32

-- A new base: of what was counted, the messages that were written after it still count; of more than 63, the last 63 may.
-- All digests stay, so that a repeat still does not count.
local function rebase_badge(badges, name, at_ms)
  local value = redis.call('HGET', badges, name)
  if not value or #value < 4 then return end
  local base, newer = math.floor(at_ms / BADGE_TICK_MS), 0
  for at = 9, #value - 3, 8 do
    local ahead = (struct.unpack('>I4', value, at) - base) % BADGE_TICKS
    if ahead > 0 and ahead < BADGE_TICKS / 2 then newer = newer + 1 end
  end
  newer = math.min(newer, (struct.unpack('>I4', value)))
  redis.call('HSET', badges, name, struct.pack('>I4', newer) .. string.sub(value, 5))
end

-- Count on from *base* as of a time, where it is news.
local function rebase(device, name, badges, at_ms, base)
  local unread_at = device[STATE_AT] - device[UNREAD_LAG]
  if at_ms < unread_at or (at_ms == unread_at and base <= device[UNREAD]) then return false end
  device[UNREAD], device[UNREAD_LAG] = base, device[STATE_AT] - at_ms
  rebase_badge(badges, name, at_ms)
  return true
end

-- State and base are each taken from the newest that says something of them; the time of the base is kept as its
-- lag behind the state, negative where a read set a newer one. A logout holds beside them until the device registers again: its
-- connection may well be lost afterwards. Returns whether anything changed.
local function report(device, name, badges, state, at_ms, unread, lease_ms)
  local left = false
  if state == 'o' then
    -- Who registered after a logout has logged in again.
    if at_ms < registered_at(device) then return false end
    left = at_ms > device[LOGGED_OUT_AT]
    device[LOGGED_OUT_AT] = math.max(at_ms, device[LOGGED_OUT_AT])
  end
  local unread_at = device[STATE_AT] - device[UNREAD_LAG]
  local newer = at_ms > device[STATE_AT]
    or (at_ms == device[STATE_AT] and RANK[state] > RANK[device[STATE]])
  if newer then
    device[STATE], device[STATE_AT] = state, at_ms
    device[LEASE_UNTIL] = state == 'f' and at_ms + lease_ms or 0
  end
  device[UNREAD_LAG] = device[STATE_AT] - unread_at
  local base = unread or (state == 'f' and 0)
  local rebased = base and rebase(device, name, badges, at_ms, base)
  return newer or rebased or left
end
