-- A message of a conversation comes for a place of a user: is it pushed at once, does it carry a later push, or does
-- another?
-- KEYS  storms of the user
-- ARGV  conversation and place, message, sender, sent_at_ms, expires_at_ms, unread (-1: not told), 1 when it may have
--       been asked before, quiet ms that end a storm, most of them, then how long to wait after the first push, the
--       second and so on (ms; the last one holds for all further ones)
-- Returns {0}: at once; {1, when}: it carries a push that is due then; {2}: the push of another one tells of it.
--
-- A value is packed msgpack: pushes so far, until when the next one waits, when a message came last, the latest
-- sent_at_ms, the message pushed at once, and of the push that waits and of the one before it: message that carries it
-- ('': none any more, its push was dropped), count, latest sender, latest sent_at_ms, latest unread, latest
-- expires_at_ms, the sent_at_ms of the carrier and the last few others, and which messages those are.
local PUSHES, UNTIL, LAST, SENT_AT, SHOWN, WAITING, BEFORE = 1, 2, 3, 4, 5, 6, 7
local ID, COUNT, SENDER, LATEST, UNREAD, EXPIRES_AT, TIMES, MESSAGES = 1, 2, 3, 4, 5, 6, 7, 8
local FIRST_WAIT, GRAIN_MS, KNOWN_MAX = 10, 250, 20
local key, field, message, sender = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local sent_at, expires_at, unread, again = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'
local quiet, most = tonumber(ARGV[8]), tonumber(ARGV[9])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function storm_in(packed)
  if not packed then return nil end
  local unpacked, storm = pcall(cmsgpack.unpack, packed)
  return unpacked and type(storm) == 'table' and #storm == BEFORE and storm or nil
end

local function is_over(storm) return now >= math.max(storm[LAST] + quiet, storm[UNTIL]) end

local function room()
  if redis.call('HLEN', key) < most then return true end
  local all = redis.call('HGETALL', key)
  for at = 1, #all, 2 do
    local storm = storm_in(all[at + 1])
    if not storm or is_over(storm) then redis.call('HDEL', key, all[at]) end
  end
  return redis.call('HLEN', key) < most
end

-- Whether *telling* knows the message.
local function tells_of(telling)
  for _, known in ipairs(telling[MESSAGES] or {}) do
    if known == message then return true end
  end
  return false
end

-- Whether all messages that it tells of are known one by one.
local function knows_all(telling) return #(telling[MESSAGES] or {}) == telling[COUNT] end

local function count_in(telling)
  telling[COUNT] = telling[COUNT] + 1
  local times, messages = telling[TIMES], telling[MESSAGES] or {}
  table.insert(times, sent_at)
  table.insert(messages, message)
  if #messages > KNOWN_MAX then
    local oldest = messages[1] == telling[ID] and 2 or 1
    table.remove(times, oldest)
    table.remove(messages, oldest)
  end
  telling[MESSAGES] = messages
end

local function be_latest_of(telling)
  -- Of two of one moment the later to come; one that came before was there already.
  if sent_at > telling[LATEST] or (sent_at == telling[LATEST] and not again) then
    telling[SENDER], telling[LATEST], telling[UNREAD] = sender, sent_at, unread
  end
  telling[EXPIRES_AT] = math.max(telling[EXPIRES_AT], expires_at)
end

local packed = redis.call('HGET', key, field)
local storm = storm_in(packed)
if not storm then
  if not packed and not room() then return {0} end
  storm = {0, 0, now, sent_at, '', {}, {}}
end
local waiting = storm[WAITING]

-- A message may come more than once: after a batch that broke, from a router that took over, or from a backend that
-- repeats itself. What it was told first holds.
if storm[SHOWN] == message then return {0} end
if waiting[ID] == message then return {1, storm[UNTIL]} end
if storm[BEFORE][ID] == message then return {1, now} end
if tells_of(waiting) or tells_of(storm[BEFORE]) then return {2} end

-- Those that wait until about the same time may travel together.
local function wait_from(start)
  local wait = ARGV[FIRST_WAIT + storm[PUSHES]] or ARGV[#ARGV]
  storm[PUSHES] = math.min(storm[PUSHES] + 1, #ARGV - FIRST_WAIT + 1)
  storm[UNTIL] = math.ceil((start + tonumber(wait)) / GRAIN_MS) * GRAIN_MS
end

local over = is_over(storm)
if waiting[ID] == '' and waiting[EXPIRES_AT] <= now then
  storm[WAITING] = {}
  waiting = storm[WAITING]
end
local orphaned = waiting[ID] == ''
-- What waited has been pushed by now.
if waiting[ID] and not orphaned and now >= storm[UNTIL] then
  wait_from(storm[UNTIL])
  storm[BEFORE], storm[WAITING] = waiting, {}
  waiting = storm[WAITING]
end
-- Only the counting starts anew: a push that could not be sent yet must still find what it tells of.
if over then storm[PUSHES], storm[UNTIL] = 0, 0 end
local answer
if orphaned and not again and expires_at > math.max(now, storm[UNTIL]) then
  storm[UNTIL] = math.max(now, storm[UNTIL])
  waiting[ID] = message
  count_in(waiting)
  be_latest_of(waiting)
  answer = {1, storm[UNTIL]}
elseif now >= storm[UNTIL] then
  -- Nothing came while it waited: it calms down.
  storm[PUSHES] = math.max(0, storm[PUSHES] - 2)
  wait_from(now)
  storm[SHOWN] = message
  answer = {0}
elseif expires_at <= storm[UNTIL] then
  answer = {0}
elseif waiting[ID] and not orphaned then
  -- One that came before may have been counted, unless all of those are known.
  if not again or knows_all(waiting) then count_in(waiting) end
  be_latest_of(waiting)
  answer = {2}
elseif again then
  -- It may be in the ledger since its first time, due when that was: too late for what would now be told by it.
  answer = {0}
else
  storm[WAITING] = {message, 1, sender, sent_at, unread, expires_at, {sent_at}, {message}}
  answer = {1, storm[UNTIL]}
end
storm[LAST], storm[SENT_AT] = now, math.max(storm[SENT_AT], sent_at)
redis.call('HSET', key, field, cmsgpack.pack(storm))
local life = math.max(now + quiet, storm[WAITING][EXPIRES_AT] or 0, storm[BEFORE][EXPIRES_AT] or 0) - now
if redis.call('PTTL', key) < life then redis.call('PEXPIRE', key, life) end
return answer
