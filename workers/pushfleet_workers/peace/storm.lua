-- A message of a conversation comes for a place of a user: is it pushed at once, does it carry a later push, or does another?
-- KEYS  storms of the user
-- ARGV  conversation and place, message, sender, sent_at_ms, expires_at_ms, unread (-1: not told), 1 when it may have been asked
--       before, quiet ms that end a storm, most of them, then how long to wait after the first push, the second
--       and so on (ms; the last one holds for all further ones)
-- Returns {0}: at once; {1, when}: it carries a push that is due then; {2}: the push of another one tells of it.
--
-- A value is packed msgpack: pushes so far, until when the next one waits, when a message came last, the latest
-- sent_at_ms, the message pushed at once, and of the push that waits and of the one before it: message, count, latest
-- sender, latest sent_at_ms, latest unread.
local PUSHES, UNTIL, LAST, SENT_AT, SHOWN, WAITING, BEFORE = 1, 2, 3, 4, 5, 6, 7
local ID, COUNT, SENDER, UNREAD = 1, 2, 3, 5
local FIRST_WAIT, GRAIN_MS = 10, 250
local key, conversation, message, sender = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local sent_at, expires_at, unread, again = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'
local quiet, most = tonumber(ARGV[8]), tonumber(ARGV[9])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function storm_in(packed)
  if not packed then return nil end
  local unpacked, storm = pcall(cmsgpack.unpack, packed)
  return unpacked and type(storm) == 'table' and #storm == BEFORE and now < storm[LAST] + quiet and storm or nil
end

local function room()
  if redis.call('HLEN', key) < most then return true end
  local all = redis.call('HGETALL', key)
  for at = 1, #all, 2 do
    if not storm_in(all[at + 1]) then redis.call('HDEL', key, all[at]) end
  end
  return redis.call('HLEN', key) < most
end

local packed = redis.call('HGET', key, conversation)
local storm = storm_in(packed)
if not storm then
  if not packed and not room() then return {0} end
  storm = {0, 0, now, sent_at, '', {}, {}}
end
local waiting = storm[WAITING]

if again then
  if storm[SHOWN] == message then return {0} end
  if waiting[ID] == message or storm[BEFORE][ID] == message then return {1, storm[UNTIL]} end
end

-- Those that wait until about the same time may travel together.
local function wait_from(start)
  local wait = ARGV[FIRST_WAIT + storm[PUSHES]] or ARGV[#ARGV]
  storm[PUSHES] = math.min(storm[PUSHES] + 1, #ARGV)
  storm[UNTIL] = math.ceil((start + tonumber(wait)) / GRAIN_MS) * GRAIN_MS
end

-- What waited has been pushed by now.
if waiting[ID] and now >= storm[UNTIL] then
  wait_from(storm[UNTIL])
  storm[BEFORE], storm[WAITING] = waiting, {}
  waiting = storm[WAITING]
end
local answer
if waiting[ID] then
  if not again then waiting[COUNT] = waiting[COUNT] + 1 end
  waiting[SENDER], waiting[UNREAD] = sender, unread
  waiting[4] = math.max(waiting[4], sent_at)
  answer = {2}
elseif now >= storm[UNTIL] then
  -- Nothing came while it waited: it calms down.
  storm[PUSHES] = math.max(0, storm[PUSHES] - 2)
  wait_from(now)
  storm[SHOWN] = message
  answer = {0}
elseif expires_at > storm[UNTIL] then
  storm[WAITING] = {message, 1, sender, sent_at, unread}
  answer = {1, storm[UNTIL]}
else
  answer = {2}
end
storm[LAST], storm[SENT_AT] = now, math.max(storm[SENT_AT], sent_at)
redis.call('HSET', key, conversation, cmsgpack.pack(storm))
redis.call('PEXPIRE', key, quiet)
return answer
