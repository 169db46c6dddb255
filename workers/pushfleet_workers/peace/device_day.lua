-- A push for a device of which its vendor takes only so many a day: does it leave, wait, or does another tell of it?
-- KEYS  days of the user's devices
-- ARGV  place, 1 when it is about to leave (0: it is only being routed), 1 when it may join others where it must wait,
--       sort (i: important, g: may be gathered, s: single), most of a day, how many of these only important ones may
--       use, ms after midnight UTC at which the vendor's day begins, message, conversation, sender, sent_at_ms,
--       expires_at_ms, unread (-1: not told), how many messages it tells of, 1 when it is asked about again, most
--       places
-- Returns a verdict, when that ends, now and the day (both of the verdict's own clock): 0 it leaves, and has been
-- counted if it is about to; 1 it carries a push that is due then; 2 another push tells of it; 3 nothing is left until
-- then; 4 it may not leave before then.
--
-- A value is packed msgpack: day, pushes of it that were not important, important ones, when the next gathered one may
-- go, and of the push that waits and of the one before it: message, when it is due, latest expires_at_ms, latest
-- unread, a mark (1: due at its end, whatever the pace; 2: it has left; 3: it was dropped), how many messages of further
-- conversations, and of each conversation its id, count, latest sender, latest sent_at_ms, the sent_at_ms and the ids
-- of the last few and, in the first one, before them of the message that carries it.
local DAY, ORDINARY, IMPORTANT, NEXT, WAITING, BEFORE = 1, 2, 3, 4, 5, 6
local ID, UNTIL, EXPIRES_AT, UNREAD, MARK, MORE, CHATS = 1, 2, 3, 4, 5, 6, 7
local NAME, COUNT, SENDER, LATEST, TIMES, MESSAGES = 1, 2, 3, 4, 5, 6
local LEAVES, CARRIES, GATHERED, FULL, WAITS = 0, 1, 2, 3, 4
local AT_ITS_END, LEFT, DROPPED = 1, 2, 3
local DAY_MS, FLIGHT_MS, LAST_MS, CHATS_MAX, TIMES_MAX = 86400000, 60000, 5000, 16, 10
local key, place, leaving, joins, sort = KEYS[1], ARGV[1], ARGV[2] == '1', ARGV[3] == '1', ARGV[4]
local most, reserved, begins = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local message, conversation, sender, sent_at = ARGV[8], ARGV[9], ARGV[10], tonumber(ARGV[11])
local expires_at, unread, tells, again = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14]), ARGV[15] == '1'
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local today = math.floor((now - begins) / DAY_MS)
local ends = (today + 1) * DAY_MS + begins

local function state_in(packed)
  if not packed then return nil end
  local unpacked, state = pcall(cmsgpack.unpack, packed)
  return unpacked and type(state) == 'table' and #state == BEFORE and state or nil
end

local function last_use(state)
  return math.max((state[DAY] + 2) * DAY_MS, state[WAITING][EXPIRES_AT] or 0, state[BEFORE][EXPIRES_AT] or 0)
end

local function room()
  if redis.call('HLEN', key) < tonumber(ARGV[16]) then return true end
  local all = redis.call('HGETALL', key)
  for at = 1, #all, 2 do
    local state = state_in(all[at + 1])
    if not state or last_use(state) < now then redis.call('HDEL', key, all[at]) end
  end
  return redis.call('HLEN', key) < tonumber(ARGV[16])
end

local packed = redis.call('HGET', key, place)
local state = state_in(packed)
if not state then
  if not packed and not room() then return {LEAVES, now, now, today} end
  state = {today, 0, 0, 0, {}, {}}
end
local changed = false
if state[DAY] ~= today then
  state[DAY], state[ORDINARY], state[IMPORTANT], state[NEXT], changed = today, 0, 0, 0, true
end
-- What waited is on its way by now.
if state[WAITING][ID] and now >= state[WAITING][UNTIL] then
  state[BEFORE], state[WAITING], changed = state[WAITING], {}, true
end
local waiting, before = state[WAITING], state[BEFORE]

local function answer(verdict, till)
  if changed then
    redis.call('HSET', key, place, cmsgpack.pack(state))
    local life = math.max(ends, state[WAITING][EXPIRES_AT] or 0, state[BEFORE][EXPIRES_AT] or 0) - now
    if redis.call('PTTL', key) < life then redis.call('PEXPIRE', key, life) end
  end
  return {verdict, till, now, today}
end

local function count(which)
  if leaving then state[which], changed = state[which] + 1, true end
end

local left = most - state[ORDINARY] - state[IMPORTANT]
if sort == 'i' then
  if left <= 0 then return answer(FULL, ends) end
  count(IMPORTANT)
  return answer(LEAVES, now)
end

local function tells_of(gather)
  for _, chat in ipairs(gather[CHATS] or {}) do
    for _, known in ipairs(chat[NAME] == conversation and chat[MESSAGES] or {}) do
      if known == message then return true end
    end
  end
  return false
end

local open = left - math.max(0, reserved - state[IMPORTANT])
local own = (waiting[ID] == message and waiting) or (before[ID] == message and before) or nil
-- A message may come more than once before it is put: what it was told first holds.
if not leaving and own then return answer(CARRIES, own == waiting and waiting[UNTIL] or now) end
if not own and (tells_of(waiting) or tells_of(before)) then return answer(GATHERED, now) end
if open <= 0 then return answer(FULL, ends) end
if sort == 's' then
  count(ORDINARY)
  return answer(LEAVES, now)
end
-- It may be in the ledger since its first time: it is not told of twice.
if not leaving and again then return answer(waiting[ID] and GATHERED or LEAVES, now) end

-- The first quarter goes as it comes; then what is left is spread over what is left of the day. Those that wait until
-- about the same time may travel together.
local function next_after(from, rest)
  if rest > (most - reserved) * 3 / 4 then return from end
  if rest < 1 then return ends end
  local at = from + (ends - from) / (rest + 1)
  local grain = at - now < 600000 and 1000 or 60000
  return math.floor(at / grain) * grain
end

local due = state[NEXT]
local gone = before[MARK] == LEFT or before[MARK] == DROPPED
if before[ID] and not gone and before[ID] ~= message and now < before[UNTIL] + FLIGHT_MS then
  -- It will be counted in a moment.
  due = math.max(due, open > 1 and next_after(before[UNTIL], open - 1) or before[UNTIL] + FLIGHT_MS)
end
-- Nothing that is left today waits until tomorrow.
if due >= ends then due = now end
local latest = math.max(expires_at, own and own[EXPIRES_AT] or 0)
local ripe = due <= now or latest - LAST_MS <= now or (leaving and again) or (own and own[MARK] == AT_ITS_END)
if ripe and (own or not waiting[ID]) then
  if leaving then
    state[NEXT] = next_after(now, open - 1)
    if own then
      own[MARK], state[BEFORE] = LEFT, own
      if own == waiting then state[WAITING] = {} end
    end
    count(ORDINARY)
  end
  return answer(LEAVES, now)
end
if not joins then return answer(WAITS, waiting[ID] and waiting[UNTIL] or due) end
if waiting[ID] and own == waiting then return answer(CARRIES, waiting[UNTIL]) end

local function add(gather, chat)
  for number, known in ipairs(gather[CHATS]) do
    if known[NAME] == chat[NAME] then
      known[COUNT] = known[COUNT] + chat[COUNT]
      for at, time in ipairs(chat[TIMES]) do
        table.insert(known[TIMES], time)
        table.insert(known[MESSAGES], chat[MESSAGES][at])
      end
      while #known[TIMES] > TIMES_MAX do
        table.remove(known[TIMES], number == 1 and 2 or 1)
        table.remove(known[MESSAGES], number == 1 and 2 or 1)
      end
      if chat[LATEST] >= known[LATEST] then known[SENDER], known[LATEST] = chat[SENDER], chat[LATEST] end
      return
    end
  end
  if #gather[CHATS] < CHATS_MAX then
    table.insert(gather[CHATS], chat)
  else
    gather[MORE] = gather[MORE] + chat[COUNT]
  end
end

local itself = {conversation, tells, sender, sent_at, {sent_at}, {message}}
local gather = own or {message, 0, expires_at, unread, 0, 0, {itself}}
changed = true
-- What another one was to tell of whose push was dropped, this one does.
if not own and before[MARK] == DROPPED then
  for _, chat in ipairs(before[CHATS]) do add(gather, chat) end
  gather[MORE] = gather[MORE] + before[MORE]
  gather[EXPIRES_AT] = math.max(gather[EXPIRES_AT], before[EXPIRES_AT])
  state[BEFORE] = {}
end
if waiting[ID] then
  for _, chat in ipairs(gather[CHATS]) do add(waiting, chat) end
  waiting[MORE] = waiting[MORE] + gather[MORE]
  waiting[EXPIRES_AT] = math.max(waiting[EXPIRES_AT], gather[EXPIRES_AT])
  if gather[UNREAD] >= 0 then waiting[UNREAD] = gather[UNREAD] end
  if own then state[BEFORE] = {} end
  return answer(GATHERED, waiting[UNTIL])
end
if own then state[BEFORE] = {} end
local at_its_end = latest - LAST_MS < due
gather[UNTIL], gather[MARK] = at_its_end and latest - LAST_MS or due, at_its_end and AT_ITS_END or 0
state[WAITING] = gather
return answer(CARRIES, gather[UNTIL])
