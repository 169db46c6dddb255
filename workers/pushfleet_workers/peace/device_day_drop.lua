-- A message is not pushed to a user after all, at some places: nothing waits for a push of it there any more.
-- KEYS  days of the user's devices
-- ARGV  message, 1: at the places, where the next push that waits tells what that of the message would have told; 0: at
--       all but the places, where it may have been put all the same, and then finds what it tells of; the places
local WAITING, BEFORE, ID, MARK, DROPPED = 5, 6, 1, 5, 3
local named = {}
for at = 3, #ARGV do named[ARGV[at]] = true end
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
  local unpacked, state = pcall(cmsgpack.unpack, all[at + 1])
  if (named[all[at]] or false) == (ARGV[2] == '1') and unpacked and type(state) == 'table' and #state == BEFORE
    and state[WAITING][ID] == ARGV[1] then
    state[BEFORE], state[WAITING] = state[WAITING], {}
    if ARGV[2] == '1' then state[BEFORE][MARK] = DROPPED end
    redis.call('HSET', KEYS[1], all[at], cmsgpack.pack(state))
  end
end
return 0
