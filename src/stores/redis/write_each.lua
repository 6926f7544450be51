-- Makes writes of one table in their order, each with twelve arguments. Returns the result of `write` for each, or {8,
-- why} if the server has refused it. Of a server that takes no writes now, the refusal itself is returned, so that all
-- are made again, if none was made.
local answers, is_made = {}, false
for at = 1, #ARGV, 12 do
    local done, answer = pcall(write, KEYS, {unpack(ARGV, at, at + 11)})
    local refusal = not done and answer or type(answer) == 'table' and answer.err
    if refusal then
        local why = type(refusal) == 'table' and refusal.err or refusal
        for _, code in ipairs({'READONLY ', 'NOREPLICAS ', 'MASTERDOWN '}) do
            if not is_made and string.find(why, code, 1, true) then
                return redis.error_reply(why)
            end
        end
        answer = {8, why}
    elseif type(answer) == 'string' or answer[1] == 0 then
        is_made = true
    end
    answers[#answers + 1] = answer
end
return answers
