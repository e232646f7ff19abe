# Completion of livenps-consumer and livenps-producer for bash. The programs are asked for their commands, options and
# settings, so this knows what the installed version knows.
_livenps() {
  local program=$1 word=$2 before=$3 command= i
  local -a help=("$program")
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ ${COMP_WORDS[i]} == [a-z]* && ${COMP_WORDS[i - 1]} != -* ]] && { command=${COMP_WORDS[i]}; break; }
  done
  [[ -n $command ]] && help+=("$command")
  case $before in
    --config | --truth) compopt -o default; return ;;
    --set)
      compopt -o nospace
      mapfile -t COMPREPLY < <(compgen -S = -W "$("$program" --help-settings 2>/dev/null | sed -n 's/^  \([a-z][a-z_.]*\)\( (.*\)\{0,1\}$/\1/p')" -- "$word")
      return
      ;;
  esac
  if [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$("${help[@]}" --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p')" -- "$word")
  elif [[ -z $command && $before != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$("$program" --help 2>/dev/null |
      sed -n '/^Commands/,/^$/s/^  \([a-z]*\) .*/\1/p')" -- "$word")
  else
    compopt -o default
  fi
}
complete -F _livenps livenps-consumer livenps-producer
